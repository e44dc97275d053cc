"""Does the planner find the right dose and the right stage?"""
