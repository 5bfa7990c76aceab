"""Finance reserves the budget of a purchase, and releases it if the purchase is denied."""
