"""The harness that holds every method against the same cases: same networks, same metrics, same right to be tuned.

`cases` reads a data set, `splits` refuses parts that overlap, `methods` lists what is compared, `tuning` chooses settings on
validation cases, `study` runs what is not yet done, `tables` and `figures` show it.
"""
