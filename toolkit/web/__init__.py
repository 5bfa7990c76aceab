"""HTTP parts that the API, the console and their clients share: server, bounded client, host names, guess limits."""
