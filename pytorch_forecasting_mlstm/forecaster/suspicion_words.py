def describe_all(s, panel, outliers): return repr(s)
