"""The sender's bank debits an account, and refunds it if the transfer fails."""
