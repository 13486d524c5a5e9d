"""The command line: arguments, panels of the help, and the errors that a command prints."""
