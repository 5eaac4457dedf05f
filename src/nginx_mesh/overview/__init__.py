"""The mesh as people look at it: the graph of its traffic, one workload with all that concerns it, what happened."""
