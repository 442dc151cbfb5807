"""What things are: values and handles, without I/O. Nothing here imports more than pydantic."""
