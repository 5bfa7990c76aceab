"""The tables of one service's database, and the sessions that read and write them."""
