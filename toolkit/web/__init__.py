"""What the API, the console and their clients share: the HTTP server, bounded answers, host names, guess limits."""
