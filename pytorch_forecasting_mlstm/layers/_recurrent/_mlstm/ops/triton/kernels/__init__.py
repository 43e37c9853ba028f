"""The kernels. Importing these modules imports Triton.

All kernels see a head as one of G = B·NH sequences, split into N chunks of BT steps. Steps after
the last one of T leave the state unchanged. Sums and states have the dtype of the gates, DTYPE.

Dimensions: B batch, NH heads, T time, K key, V value; BT, BK and BV are the sides of blocks.
"""
