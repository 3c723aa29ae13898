"""The growing file: one writer, many readers, each at its own pace.

Theory of operation.  A pool delivers a download by calling :meth:`Spool.write` on the reactor.  Chunks wait in a short queue
(:mod:`~.steps`); one coroutine takes all that is due to a worker thread, which hashes and writes it
(:mod:`~.writer`).  What is on disk becomes visible to readers (:mod:`~.reader`), less the last
:data:`~.reader.HOLD` bytes: they are shown when the digest of the whole file has matched, or, where there is
none, when every other sign of completeness has been looked at.  Readers read the file itself (``sendfile``), so memory grows
neither with the file nor with the number of readers.

Where a download stands is one of the states of :mod:`~.states`, and :meth:`Spool._happened` is the only place where
that changes.  Bytes that turn out to be wrong are *hidden* by that before anything else is done about them: until they have
been replaced nothing is visible.  A download begins anew only while no byte has been sent; a reader whose client has been
promised another size meets an error then.

When the disk is full the spool goes over to *passing* (:mod:`~.passing`): further bytes are kept in a window that
moves on when every reader has passed; nothing is committed.
"""
