"""The recipe in other libraries: a module each, imported only when its rows are verified, as none must be installed."""
