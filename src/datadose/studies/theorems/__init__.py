"""The theorems and propositions of the paper, checked one by one."""
