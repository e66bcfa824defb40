"""Commands: a module for each; it imports what it needs when it is called."""
