"""The two connectors between the core and its edges.

The Inbox is ordered, bounded, and waits; the Table is keyed, its latest value wins, and it never waits.
"""
