"""The harness that runs every method on the same cases: same networks, same metrics, same right to be tuned.

`request` says what is asked, `cases` reads a data set, `splits` refuses parts that overlap, `preparation` puts networks, methods
and cases together, `methods` lists what is compared, `tuning` chooses settings on validation cases, `study` runs what is not
yet done, `tables` and `figures` show it. `benchmark` goes through all of it, from request to files.
"""
