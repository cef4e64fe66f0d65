"""The two connectors between the core and its edges: the Inbox (ordered, bounded, waits) and the Table (keyed, latest wins, never waits)."""
