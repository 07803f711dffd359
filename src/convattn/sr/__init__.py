"""convattn.sr"""
