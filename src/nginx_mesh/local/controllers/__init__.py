"""Workload controllers: pure functions that plan the next changes to a workload's pods, and their execution."""
