"""What stands behind the notebooks: one subject a file, each built only on those above it.

errors           the errors a user meets
checks           parameters, judged before anything is sent
explain          the client library's words as a plain sentence
settings         which settings are the user's, which the measurement's, which may be shown
client           a client's life: connect, ask, stop, close
config           credentials, from wherever the user has put them
topics           make a topic, and ask where it ends
cluster          choose a cluster, and describe it
runs             what one producer's run has measured
statistics       the client's own statistics of a run
warm_up          what happens on a connection before the clock
measurement      batches, delivery reports and waiting, around one producer
read_back        look for every message in the topic again
results          save and load
compare          averages, ratios, intervals, drift
words            sentences about a measurement
show             source, tables and progress in a notebook
figures          the figures
figures_further   those of going_further.ipynb
readme           what README.md says of the saved runs
run_notebook     execute a notebook in a terminal
"""
