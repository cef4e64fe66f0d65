"""Who we talk to: the only awaiters below daemon. Siblings know nothing of each other."""
