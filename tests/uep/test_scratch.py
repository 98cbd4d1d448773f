import os,time,sys,pytest
def f(x): return x+1
def pss(pid):
    t=0
    from pathlib import Path
    for l in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if l.startswith("Pss:"): t=int(l.split()[1])
    return t/1024
@pytest.mark.parametrize("engine",os.environ.get("ENG","ThreadPoolEngine,ProcessPoolEngine").split(","))
def test_first(service,start_uep,engine):
    extra = "  max_workers: 2\n" if "Pool" in engine else "  address: 127.0.0.1\n  max_workers_per_node: 2\n"
    for i in range(3):
        uep=start_uep(f"engine:\n  type: {engine}\n{extra}",name=f"uep.t{i}")
        t=service.send(f,1)
        r=uep.wait_ready()
        v=service.result(); first=time.monotonic()-uep.started
        service.value(v)
        ts=[]
        for _ in range(100):
            t0=time.perf_counter(); service.call(f,2); ts.append(time.perf_counter()-t0)
        buf=service.pack(f,1)
        t0=time.perf_counter()
        for _ in range(2000): service.send_buffer(buf)
        t1=time.perf_counter()
        n=0
        got={}
        for m,p,b in service.channel.consume(service.endpoint_id+".results",auto_ack=True):
            n+=1
            if n==2000: break
        service.channel.cancel()
        t2=time.perf_counter()
        d=uep.descendants()
        print("\n%s ready %.3f first %.3f warm %.4f; 2000 tasks send %.2f all %.2f = %d/s"%(engine,r,first,sorted(ts)[50],t1-t0,t2-t0,2000/(t2-t0)), "pss %.1f"%pss(uep.process.pid), ["%.1f"%pss(x) for x in d])
        t0=time.time()
        print("exit",uep.stop(), "%.2f"%(time.time()-t0), uep.descendants())
    print(uep.log.read_text())
