"""How nodes agree: state machines without I/O that talk in messages."""
