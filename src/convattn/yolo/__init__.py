"""convattn.yolo"""
