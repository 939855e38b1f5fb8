# sources of fs/
