"""Tables of users: converted, checked and read into records."""
