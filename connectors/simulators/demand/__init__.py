"""A year of real bicycle orders; README.md beside this names source and licence."""
