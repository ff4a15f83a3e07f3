"""Tables as pools: columns by name in, the arguments of a verb out. The commands and the verbs share this one path."""
