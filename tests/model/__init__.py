"""What policies mean, said a second time: written from the documents, without the compiler, to judge the engine by."""
