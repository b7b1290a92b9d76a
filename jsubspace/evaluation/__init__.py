"""What networks and subspaces are worth, measured for anybody's network."""
