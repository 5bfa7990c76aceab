"""Settings by environment: what each variable may hold, and where its value comes from."""
