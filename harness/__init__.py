"""What stands behind the notebooks: one subject a file, each built only on those above it.

errors        the errors a user meets
config        credentials, settings and parameters
client        a client's life: connect, ask, stop, close; its words in plain ones
topics        make a topic, and ask where it ends
cluster       choose a cluster, and describe it
network       the client's own statistics of a run
runs          what one producer's run has measured
measurement   batches, delivery reports and waiting, around one producer; what comes before the clock
read_back     look for every message in the topic again
results       save and load
report        averages, intervals, sentences and tables
figures       the figures
run_notebook  execute a notebook in a terminal
handin        what is handed in, as a folder and a zip
"""
