"""The routes for clients: generations, values, tensors, and their description."""
