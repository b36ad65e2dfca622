package etcdtest_test

func issuerMain() {}
