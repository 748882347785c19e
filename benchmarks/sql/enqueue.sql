select tide.job_enqueue('q', 'send', '$payload');
