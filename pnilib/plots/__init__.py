"""Pictures for notebooks and reports: every function draws on an Axes, returns it and never saves."""
