select tide.inbox_write('letters', array[gen_random_uuid()::text], array['order'], array['bench'], array['customer-7'], array[1::bigint],
                        array['$payload'], array['{}'], array[null::text]);
