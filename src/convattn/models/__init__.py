"""The super-resolution networks of the ESC paper, and smaller ones of our own."""
