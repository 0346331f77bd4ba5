"""The stages put together; alone with the command line it knows every room."""
