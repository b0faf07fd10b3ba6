"""Who is there: the links with other nodes, and the membership that runs over them."""
