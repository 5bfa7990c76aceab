"""What an operator reads and changes in one service's database, whether the service runs or not."""
