"""The scenarios, by what they are about. Each is a function that reads like the rule that it plays."""
