"""`orchestra demo`: measure the standard library of this interpreter, one step per module."""
