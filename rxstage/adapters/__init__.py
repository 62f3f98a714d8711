"""The ports on real libraries, one a file, each imported only when it is used."""
