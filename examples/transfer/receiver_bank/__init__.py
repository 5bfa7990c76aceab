"""The receiver's bank credits an account, which ends the transfer."""
