# sources of man/
