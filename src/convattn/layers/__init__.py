"""convattn.layers"""
