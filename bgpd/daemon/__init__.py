"""Assembly: every task of the daemon, the inbox between them, and what ends the process."""
