"""Where it is written: the store contract and its backends. The store is the truth; the broker is only a courier."""
