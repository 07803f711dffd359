"""The two operators of the network as plain functions on tensors."""
