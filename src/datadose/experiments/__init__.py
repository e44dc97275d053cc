"""The experiments behind the paper's figures and claims: each is a config with cells and a table."""
